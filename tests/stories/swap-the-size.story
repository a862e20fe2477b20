# Another size, please

receipt 1 shoe/42                     -> done
receipt 1 shoe/43                     -> done
ann holds 1 shoe/42 as A              -> held
amend A to 1 shoe/43                  -> held, 1 shoe/43, 0 shoe/42
stock shoe/42                         -> done, 1 sellable
bob holds 1 shoe/42 as B              -> held
# Her old size is gone, so she keeps the one that she has.
amend A to 1 shoe/42                  -> insufficient-stock, 0 sellable
look at A                             -> held, 1 shoe/43
# Said twice, done once.
amend A to 1 shoe/43                  -> held
commit A for order-1                  -> committed, sold 1 shoe/43
amend A to 1 shoe/42                  -> already-committed
