# A payment that comes too late

receipt 1 shoe                        -> done
ann holds 1 shoe for 10 min as A      -> held, lives 10 min
9 min pass
look at A                             -> held
1 min passes
# From its deadline on the hold is expired, to the millisecond, whether or not anyone has swept.
look at A                             -> expired
commit A for order-1                  -> hold-expired
release A                             -> hold-expired
extend A by 10 min                    -> hold-expired
stock shoe                            -> done, 0 held, 1 sellable
bob holds 1 shoe as B                 -> held
