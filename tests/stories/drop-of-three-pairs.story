# A drop of three pairs
# Four people want three pairs. Three get one, the fourth is told at once, and nothing is sold twice.

receipt 3 shoe                        -> done
ann holds 1 shoe as A                 -> held, 1 shoe
bob holds 1 shoe as B                 -> held
cat holds 1 shoe as C                 -> held
dan holds 1 shoe as D                 -> insufficient-stock, 0 sellable
stock shoe                            -> done, 3 on hand, 3 held, 0 sellable

# Ann and Bob pay; Cat changes her mind, and so Dan gets her pair after all (a new try, hence a new key).
commit A for order-1                  -> committed, sold 1 shoe
commit B for order-2                  -> committed
release C because changed my mind     -> released
dan holds 1 shoe as D2                -> held
commit D2 for order-3                 -> committed
stock shoe                            -> done, 3 on hand, 0 held, 3 committed, 0 sellable
shipment 3 shoe                       -> done
stock shoe                            -> done, 0 on hand, 0 committed, 0 sellable
