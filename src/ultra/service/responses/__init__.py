"""The protocol of OpenAI's responses.

A response is made of the request and the result of its run, and of nothing else, and each event of a stream
has its number; so both can be kept, and given again.
"""
