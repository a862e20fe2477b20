# Amending while there is too little

receipt 4 shoe                        -> done
receipt 4 sock                        -> done
ann holds 3 shoe as A                 -> held
# Her own units do not count against her: four of four, of which she has three.
amend A to 4 shoe                     -> held, 4 shoe
amend A to 5 shoe                     -> insufficient-stock, 4 sellable
damage 3 shoe because fire            -> done, shortfall 3
# To want less, or something else, is always possible; more is not.
amend A to 3 shoe + 1 sock            -> held, 3 shoe, 1 sock
amend A to 4 shoe                     -> insufficient-stock, 1 sellable
amend A to 2 sock                     -> held, 2 sock
stock shoe                            -> done, 1 on hand, 0 held, 1 sellable
