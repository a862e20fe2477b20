# Sold, shipped, sent back

receipt 3 shoe                        -> done
ann holds 2 shoe as A                 -> held
# What is only held cannot be shipped.
shipment 1 shoe                       -> movement-refused
commit A for order-1                  -> committed
shipment 2 shoe of A                  -> done
stock shoe                            -> done, 1 on hand, 0 committed, 1 sellable
return 1 shoe of A because too small  -> done
stock shoe                            -> done, 2 on hand, 2 sellable
cancel 1 shoe                         -> movement-refused
