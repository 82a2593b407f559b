"""The steps of a recipe, one a module: what each makes of its inputs, so that its code version follows from what it imports."""
