# The yearly count

receipt 10 shoe                       -> done
ann holds 4 shoe as A                 -> held
commit A for order-1                  -> committed
adjustment -3 shoe because recount    -> done, no shortfall
adjustment +1 shoe because found one  -> done
stock shoe                            -> done, 8 on hand, 4 committed, 4 sellable
# No shelf holds less than nothing.
adjustment -9 shoe because recount    -> movement-refused
# But it may hold less than is promised; then it says so.
adjustment -6 shoe because recount    -> done, shortfall 2
stock shoe                            -> done, 2 on hand, -2 sellable
