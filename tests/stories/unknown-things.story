# What nobody has heard of

ann holds 1 shoe as A                 -> unknown-sku
stock shoe                            -> unknown-sku
damage 1 shoe because lost            -> unknown-sku
commit Z for order-1                  -> unknown-hold
look at Z                             -> unknown-hold
# A delivery makes a SKU known; so does a policy, which makes it known and empty.
receipt 1 shoe                        -> done
policy sock: safety 0                 -> done, new
ann holds 1 shoe + 1 sock as B        -> insufficient-stock, short sock
ann holds 1 shoe + 1 hat as C         -> unknown-sku
stock shoe                            -> done, 1 sellable
