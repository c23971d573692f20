"""Training of CFR-SAM: the learner of points, and SAM's adaptation."""
