# A cart over two SKUs is held whole or not at all

receipt 5 shoe                        -> done
receipt 1 sock                        -> done
ann holds 2 shoe + 2 sock as A        -> insufficient-stock, short sock, 1 sellable
# Not one shoe is held for the cart that could not be had whole.
stock shoe                            -> done, 0 held, 5 sellable
ann holds 2 shoe + 1 sock as A2       -> held, 2 shoe, 1 sock
# Everything that is short is named, not only the first of it.
bob holds 4 shoe + 1 sock as B        -> insufficient-stock, short shoe+sock
commit A2 for order-1                 -> committed, sold 2 shoe, sold 1 sock
