"""The words of prompts: composing them, fencing what models wrote, fitting it all into a window."""
