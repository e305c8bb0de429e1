"""Seeded simulations: virtual time, a repeatable schedule, and checks of every guarantee.

For tests of your own services, also as `ultra.faults.simulate` and as fixtures of pytest:

    user_scenarios   run an async function of yours under a seed
    pytest_plugin    the fixtures `simulation` and `fault_plan`

For Ultra itself (``ultra chaos``):

    campaign         many seeds, spread over processes, added up
    one_seed         one seed: an actor system and an orchestrator side by side in one trio run
    actor_system/    what the seed decides, the workload, and ledgers that check what the runtime does
    orchestrator/    models, users, faults, and checks of what users are told

Below both: `record` (events and violations) and `determinism` (the clock and the schedule of a trio run).
The guarantees are numbered in docs/semantics.md.
"""
