# A late payment that is honoured if the stock is still there

receipt 1 shoe                        -> done
ann holds 1 shoe for 10 min as A      -> held
15 min pass
commit A for order-1 even if expired  -> committed, reacquired, sold 1 shoe
# Said twice it is still one sale.
commit A for order-1 even if expired  -> committed, reacquired, again
stock shoe                            -> done, 1 on hand, 1 committed, 0 sellable

# The next one is too late in earnest: Cat has taken the pair meanwhile.
receipt 1 shoe                        -> done
bob holds 1 shoe for 10 min as B      -> held
15 min pass
cat holds 1 shoe as C                 -> held
commit B for order-2 even if expired  -> insufficient-stock, 0 sellable
look at B                             -> expired
