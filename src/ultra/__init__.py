"""Ultra asks several language models the same question and merges their answers, on trio actors."""
