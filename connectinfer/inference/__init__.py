"""From a model and data to a posterior: the engines and the one-line door above them."""
