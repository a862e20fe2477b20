# More time, but not for ever

policy shoe: ttl 10 min, longest 30 min -> done, new
receipt 1 shoe                        -> done
ann holds 1 shoe as A                 -> held, lives 10 min
ann holds 1 shoe for 31 min as B      -> invalid-request
5 min pass
# An extension counts from now, and never shortens.
extend A by 10 min                    -> held, lives 15 min
extend A by 1 s                       -> held, lives 15 min
# Thirty minutes from the beginning are the end.
extend A by 2 h                       -> held, lives 30 min
extend A by 2 h                       -> held, lives 30 min
25 min pass
look at A                             -> expired
