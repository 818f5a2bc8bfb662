"""The paper's experiments, re-run; what recipes reached; and a thousand machines."""
