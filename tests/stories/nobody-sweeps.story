# Overdue holds free their stock although nobody sweeps

receipt 3 shoe                        -> done
receipt 3 sock                        -> done
ann holds 3 sock for 1 min as A       -> held
bob holds 2 shoe for 2 min as B       -> held
cat holds 1 shoe for 30 min as C      -> held
3 min pass
# Bob's pairs are to be had, behind Ann's older socks, which nobody has asked for.
dan holds 2 shoe as D                 -> held
eve holds 1 shoe as E                 -> insufficient-stock, 0 sellable
look at C                             -> held
look at B                             -> expired
stock sock                            -> done, 0 held, 3 sellable
