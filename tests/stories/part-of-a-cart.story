# Paying for part of a cart

receipt 5 shoe                        -> done
receipt 5 sock                        -> done
ann holds 3 shoe + 2 sock as A        -> held
commit A for order-1 only 4 shoe      -> invalid-request
commit A for order-1 only 1 shoe      -> committed, sold 1 shoe, given back 2 shoe, sold 0 sock, given back 2 sock
commit A for order-1 only 1 shoe      -> committed, again
# What was sold is sold: another part, or another order, is another wish.
commit A for order-1                  -> already-committed
commit A for order-2 only 1 shoe      -> already-committed
stock shoe                            -> done, 1 committed, 4 sellable
stock sock                            -> done, 0 committed, 5 sellable
# To list everything is the same as to list nothing.
bob holds 2 shoe + 1 sock as B        -> held
commit B for order-3 only 2 shoe + 1 sock -> committed, sold 2 shoe
commit B for order-3                  -> committed, sold 2 shoe, again
