# A sale opens and closes by the store's clock

receipt 5 shoe                        -> done
policy shoe: opens in 10 min, closes in 1 h -> done
ann holds 1 shoe as A                 -> sale-not-open
10 min pass
ann holds 1 shoe as B                 -> held
50 min pass
ann holds 1 shoe as C                 -> sale-closed
# Who took it in time may pay after closing, if the hold still lives.
bob holds 1 shoe as D                 -> sale-closed
receipt 1 sock                        -> done
policy sock: closes in 5 min          -> done
cat holds 1 sock as E                 -> held
6 min pass
commit E for order-1                  -> committed
