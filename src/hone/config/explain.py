def recipe_names():
    return []
