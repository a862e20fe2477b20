# The sweeper tidies up, and changes no answer

receipt 3 shoe                        -> done
ann holds 1 shoe for 1 min as A       -> held
bob holds 1 shoe for 2 min as B       -> held
sweep                                 -> done, 0 swept
1 min passes
sweep                                 -> done, 1 swept
sweep                                 -> done, 0 swept
look at A                             -> expired
look at B                             -> held
commit B for order-1                  -> committed
5 min pass
sweep                                 -> done, 0 swept
