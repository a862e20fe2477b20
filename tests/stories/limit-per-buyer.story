# Two a customer

policy shoe: limit 2                  -> done, new
receipt 9 shoe                        -> done
ann holds 1 shoe as A                 -> held
ann holds 2 shoe as B                 -> purchase-limit-exceeded, limit 2, already 1
ann holds 1 shoe as C                 -> held
commit A for order-1                  -> committed
# Bought or held, it counts the same; and lines of one SKU add up.
ann holds 1 shoe as D                 -> purchase-limit-exceeded, limit 2, already 2
bob holds 1 shoe + 2 shoe as E        -> purchase-limit-exceeded, already 0
bob holds 2 shoe as F                 -> held
# Nobody in particular cannot be counted.
someone holds 1 shoe as G             -> invalid-request
