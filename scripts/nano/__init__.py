"""How the bundled model is trained: data, teacher, student, and the stages that make one from the other."""
