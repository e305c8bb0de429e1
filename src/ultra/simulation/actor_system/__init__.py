"""The half of a simulation that runs an actor system: its tree, its workload, and the ledgers that check it.

setup              what the seed decides: the tree, the options, the faults, the end
run                make the tree, start the workload, end the system, check what is left
actors             the actors and their messages
workload           senders, an operator who stops and revives, watchers
nodes              what is known of each actor and supervisor
message_ledger     each message from sending to its last fate: guarantees 1 to 5, 10
lifecycle_ledger   starts, crashes, restarts and ends: guarantees 6 to 8, 10, 11
"""
