"""What a late-interaction model keeps of a text: token states, compared, packed and remembered."""
