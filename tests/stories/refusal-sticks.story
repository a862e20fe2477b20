# A refusal sticks to its key

receipt 1 shoe                        -> done
ann holds 2 shoe as A                 -> insufficient-stock, 1 sellable
receipt 9 shoe                        -> done
# The retry of a request is answered as the request was, or a client could never trust a retry.
ann holds 2 shoe as A                 -> insufficient-stock, 1 sellable, again
# To ask again is a new request with a new key.
ann holds 2 shoe as A2                -> held
