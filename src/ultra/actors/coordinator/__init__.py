"""The actor that takes runs through their strategies by messaging the model actors."""
