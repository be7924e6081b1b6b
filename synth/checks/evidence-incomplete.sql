-- description: Evidence without a name or unit, or whose value is not a finite number; only a likelihood may be absent.
-- severity: error
-- scope: pair
-- needs: pair_evidence
SELECT pair_id, template_id, evidence FROM pair_evidence
WHERE evidence IS NULL OR evidence.name IS NULL OR trim(evidence.name) = '' OR evidence.unit IS NULL
   OR NOT coalesce(isfinite(evidence.value), starts_with(evidence.name, 'annotated '))
