# The last two are not for sale

receipt 5 shoe                        -> done
policy shoe: safety 2                 -> done
ann holds 4 shoe as A                 -> insufficient-stock, 3 sellable
ann holds 3 shoe as A2                -> held
# A rule that asks for more than is free takes nothing back; it stops what is new.
policy shoe: safety 4                 -> done
look at A2                            -> held
stock shoe                            -> done, -2 sellable
bob holds 1 shoe as B                 -> insufficient-stock, -2 sellable
commit A2 for order-1                 -> committed
policy shoe: safety 0                 -> done
bob holds 2 shoe as B2                -> held
