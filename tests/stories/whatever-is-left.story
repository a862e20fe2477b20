# A buyer who takes whatever is left

receipt 3 shoe                        -> done
receipt 2 sock                        -> done
ann holds 5 shoe + 1 sock partly as A -> held, 3 of 5 shoe, 1 of 1 sock
stock shoe                            -> done, 3 held, 0 sellable
# Where one line has nothing left, the others are granted all the same…
bob holds 1 shoe + 1 sock partly as B -> held, 0 of 1 shoe, 1 of 1 sock
# …but a hold of nothing at all is refused.
cat holds 1 shoe partly as C          -> insufficient-stock, 0 sellable
commit A for order-1                  -> committed, sold 3 shoe, sold 1 sock
release B                             -> released, given back 1 sock
