"""One module a method: the recipe that it takes, what it reads, and, where no process of its own trains it, how it is fitted.

Each has a class `Recipe`, whose `method` is the module's name. A classical method has besides

    fit_reads(recipe), predict_reads(recipe) -> tuple[Read, ...]      beside what every method reads
    fit(recipe, inputs, fold, folder, report) -> dict                 numbers for the manifest; leaves its files in `folder`
    predict(recipe, inputs, fold, folder) -> frame                    KEYS, action and what else of ANSWERS it knows

with `inputs` the frames by table name. `tapehouse.training.<method>.train` trains a language model's adapter.
"""
