"""The half of a simulation that runs an orchestrator: its models, its users, and the checks of its answers.

run              register the models, start the users and an operator, end the orchestrator
models           models in virtual time, called directly or over HTTP in memory
faults           which faults the seed decides on, and what they excuse
workload         users who run, stream, ask and give up; an operator who changes things
answer_checks    whether results and streams tell what the models really said
"""
