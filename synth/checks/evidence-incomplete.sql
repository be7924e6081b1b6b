-- description: Evidence without a name or unit, or whose value is absent or not a finite number.
-- severity: error
-- scope: pair
-- needs: pair_evidence
SELECT pair_id, template_id, evidence FROM pair_evidence
WHERE evidence IS NULL OR evidence.name IS NULL OR trim(evidence.name) = '' OR evidence.unit IS NULL
   OR evidence.value IS NULL OR NOT isfinite(evidence.value)
