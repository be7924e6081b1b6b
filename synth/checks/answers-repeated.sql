-- description: The same answer given twice, the same option offered twice, or a choice of one.
-- severity: error
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, answers, options FROM pairs
WHERE list_unique(answers) <> len(answers) OR list_unique(options) <> len(options) OR len(options) = 1
