"""What answers predictions and what remembers them: the model server, the prediction journal, their metrics."""
