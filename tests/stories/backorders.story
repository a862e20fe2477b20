# Selling a few more than are there, on purpose

receipt 2 shoe                        -> done
policy shoe: oversell 1               -> done
ann holds 2 shoe as A                 -> held
bob holds 1 shoe as B                 -> held
cat holds 1 shoe as C                 -> insufficient-stock, 0 sellable
commit A for order-1                  -> committed
commit B for order-2                  -> committed
stock shoe                            -> done, 2 on hand, 3 committed, 0 sellable
# Shipping and sales never pass what was allowed.
shipment 4 shoe                       -> movement-refused
