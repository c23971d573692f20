"""CFR-SAM: points by a learner of its own, and a SAM that adapters, fused levels and refined masks make finer."""
