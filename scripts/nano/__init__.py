"""How the bundled model is trained: data, teacher, student, and the stages between them."""
