"""Pictures of labelled data; nothing is computed here."""
