"""Large text collections: read, filtered, deduplicated, tokenised to shards and sealed, in small tasks that resume."""
