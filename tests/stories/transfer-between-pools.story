# Pools: what is Europe's is not America's

receipt 5 shoe@eu                     -> done
receipt 1 shoe@us                     -> done
ann holds 2 shoe@us as A              -> insufficient-stock, 1 sellable
bob holds 3 shoe@eu as B              -> held
transfer 3 shoe@eu to us              -> movement-refused
transfer 2 shoe@eu to us              -> done
ann holds 3 shoe@us as A2             -> held
stock shoe@eu                         -> done, 3 on hand, 3 held, 0 sellable
stock shoe@us                         -> done, 3 on hand, 3 held, 0 sellable
# A pool that nobody has filled is empty, not unknown.
stock shoe@moon                       -> done, 0 on hand, 0 sellable
cat holds 1 shoe@moon as C            -> insufficient-stock, 0 sellable
