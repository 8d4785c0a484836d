"""Team births: how many children are born in each US state on each day?"""
