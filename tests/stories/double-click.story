# A double click is one hold

receipt 5 shoe                        -> done
ann holds 1 shoe as A                 -> held
ann holds 1 shoe as A                 -> held, again
ann holds 1 shoe as A                 -> held, again
stock shoe                            -> done, 1 held, 4 sellable
commit A for order-1                  -> committed
commit A for order-1                  -> committed, again
# The first answer stays the answer of its key, even when the hold has long been paid.
ann holds 1 shoe as A                 -> held, again
stock shoe                            -> done, 0 held, 1 committed, 4 sellable
# A delivery that is booked twice by a nervous clerk arrives once.
receipt 7 sock with key delivery-7    -> done
receipt 7 sock with key delivery-7    -> done, again
stock sock                            -> done, 7 on hand
