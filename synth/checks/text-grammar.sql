-- description: A message with a word said twice, or with "a" before a vowel or "an" before a consonant.
-- severity: warning
-- scope: pair
-- needs: texts
SELECT pair_id, template_id, role, times, content FROM texts
-- German and Swedish terms are no English
WHERE template_id NOT IN ('knowledge-foreign-names', 'knowledge-name-meant') AND regexp_matches(content, '\b(?:(?i:the the|a a|an an|a an|an a|a the|the a|an the|the an|of of|in in|is is|are are|to to|no no|with with|and and|or or|at at|on on|not not|this this|that that|lead lead|leads leads|ECG ECG|axis axis|rate rate|rhythm rhythm|wave wave|block block|beat beat|ventricular ventricular|atrial atrial|possible possible|probable probable|ms ms|mV mV)\b|[Aa] (?:[ai][a-z]|e[^uw\s]|o[^n\s]|on[^ec]|u(?:n[^i]|pp|pr|pw|lt))|[Aa]n (?:[bcdfgjklmnpqrstvwxyz][a-z]|h[aei][^u]))')
