"""A sweep: workers that train what a study lacks, and what is told of it."""
