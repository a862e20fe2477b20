# One key, two wishes: the second is refused and changes nothing

receipt 5 shoe                        -> done
ann holds 1 shoe as A with key cart-1 -> held
ann holds 2 shoe as X with key cart-1 -> idempotency-key-reused
bob holds 1 shoe as Y with key cart-1 -> idempotency-key-reused
receipt 1 shoe with key cart-1        -> idempotency-key-reused
stock shoe                            -> done, 5 on hand, 1 held
# The one who used it rightly is not disturbed by that.
ann holds 1 shoe as A with key cart-1 -> held, again
