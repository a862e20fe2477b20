# Damage below what is promised: marked, and healed

receipt 5 shoe                        -> done
ann holds 2 shoe as A                 -> held
bob holds 2 shoe as B                 -> held
commit A for order-1                  -> committed
# Water in the cellar: three pairs are gone, four are promised.
damage 3 shoe because water           -> done, shortfall 2
stock shoe                            -> done, 2 on hand, 3 damaged, 2 held, 2 committed, -2 sellable
# Nobody is robbed of a hold, but there are no new ones, of not even one pair.
look at B                             -> held
cat holds 1 shoe as C                 -> insufficient-stock, -2 sellable
receipt 1 shoe                        -> done, shortfall 1
release B                             -> released
stock shoe                            -> done, 1 sellable
receipt 4 shoe                        -> done, no shortfall
cat holds 5 shoe as C2                -> held
