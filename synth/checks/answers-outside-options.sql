-- description: An answer that was not among the options offered.
-- severity: error
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, answers, options FROM pairs
WHERE len(options) > 0 AND NOT list_has_all(options, answers)
