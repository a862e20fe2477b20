# What is given back does not count against the limit

policy shoe: limit 1                  -> done, new
receipt 9 shoe                        -> done
ann holds 1 shoe as A                 -> held
release A                             -> released
ann holds 1 shoe for 10 min as B      -> held
ann holds 1 shoe as C                 -> purchase-limit-exceeded, already 1
10 min pass
# Expiry gives back as well, even when nobody has swept and there is plenty of stock.
ann holds 1 shoe as D                 -> held
commit D for order-1                  -> committed
ann holds 1 shoe as E                 -> purchase-limit-exceeded
# A sale undone before shipping…
cancel 1 shoe of D                    -> done
ann holds 1 shoe as F                 -> held
commit F for order-2                  -> committed
shipment 1 shoe of F                  -> done
ann holds 1 shoe as G                 -> purchase-limit-exceeded, already 1
# …or sent back after it.
return 1 shoe of F                    -> done
ann holds 1 shoe as H                 -> held
# But no more comes back than went out.
return 1 shoe of F                    -> movement-refused
