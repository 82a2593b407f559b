"""Where raw records come from. A source hands over text as received, each record with its origin; it judges nothing."""
