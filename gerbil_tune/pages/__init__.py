"""Pages that one file of HTML holds whole: their pieces, style sheet and script."""
