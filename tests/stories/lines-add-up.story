# Two lines of one SKU are one claim

receipt 3 shoe                        -> done
ann holds 2 shoe + 2 shoe as A        -> insufficient-stock, 3 sellable
ann holds 2 shoe + 1 shoe as B        -> held, 3 shoe
stock shoe                            -> done, 3 held, 0 sellable
commit B for order-1 only 2 shoe      -> committed, sold 2 shoe, given back 1 shoe
